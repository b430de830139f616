"""The one error of the trainer. It lies apart because it must cost no import of torch."""


class TrainError(ValueError):
    """Something the user can mend; its text is one sentence for the user."""
