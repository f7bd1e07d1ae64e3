"""Methods of inference: from a model, data and start values to what a fit keeps."""
