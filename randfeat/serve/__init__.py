"""Service over HTTP: features, classes, samples and neighbours of images that are sent to it."""
