"""A tokenizer and a generator together: images in, images, features and likelihoods out."""
