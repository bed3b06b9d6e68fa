"""TensorRT plans of the embedding graph: built, kept between starts, loaded. TensorRT itself is always handed in."""
