"""What pyproject.toml cannot say: a wheel brings files of the top folder, in `atelier/project`."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

BROUGHT = ("prefect.yaml", "pyproject.toml", "requirements.lock")


class BuildWithProjectFiles(build_py):
    """Copies them beside the modules; an editable installation finds them where they are."""

    def run(self) -> None:
        """Build as ever, then copy."""
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib) / "atelier" / "project"
        folder.mkdir(parents=True, exist_ok=True)
        for name in BROUGHT:
            shutil.copyfile(name, folder / name)


setup(cmdclass={"build_py": BuildWithProjectFiles})
