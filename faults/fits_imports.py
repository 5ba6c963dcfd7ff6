"""What a fit needs, imported once by the process that all fits are forked from."""

import logging

import torch

from atelier.services import process_settings

process_settings.apply_settings()
torch.set_num_threads(1)  # a forked process cannot use the threads of its parent

# What is imported only where it is used takes two thirds of a small fit.
import torch._dynamo  # noqa: E402

import flows.train  # noqa: E402, F401
import tasks.data.tokenization  # noqa: E402
import tasks.store.outbox  # noqa: E402
import tasks.tracking.runs  # noqa: E402
import tasks.training.fit  # noqa: E402, F401

logging.getLogger("atelier").setLevel(logging.CRITICAL)  # fifty fits would say the same
