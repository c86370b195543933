"""What compiled modules are saved as and loaded from; `torch_tensorrt.save` and `load` are the public part."""
