"""Training on several processes, by hand and with ``torch.distributed``. Chapter 5."""
