"""What a visitor sees: the app, the model card, and the way to the Hub."""
