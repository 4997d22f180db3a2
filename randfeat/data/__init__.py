"""Images and tokens, from what the user holds to tensors: decoding, sources, labels, loaders and stores."""
