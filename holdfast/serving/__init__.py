"""The service: images come in by HTTP, answers leave, and the model adapts as it goes."""
