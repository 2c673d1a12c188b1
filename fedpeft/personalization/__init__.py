"""What each person keeps: a private adapter on top of the global one, behind a validation gate."""

from fedpeft.personalization.finetune import Personal, personalize

__all__ = ["Personal", "personalize"]
