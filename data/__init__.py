"""The text: where it comes from, how it becomes numbers, and what counting alone can do with it."""
