"""What the notebooks share: set-up, claims, the ladder, pictures, exercise checks."""

from lab.claims import claim

__all__ = ["claim"]
