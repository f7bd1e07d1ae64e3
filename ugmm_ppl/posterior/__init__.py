"""What a fit says of data: predictions, functions, and the weights of its chains."""
