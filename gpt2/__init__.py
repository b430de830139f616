"""What model_gpt2.py and train_gpt2.py lean on, a file for each question. Start with those two."""
