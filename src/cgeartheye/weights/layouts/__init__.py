"""How others name the tensors of the same network: pure maps from one dictionary of tensors to another.

Our own names are DINOv2's. A map never drops a key it does not know: it keeps the name, and the strict loader lists it.
"""
