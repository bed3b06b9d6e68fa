"""The PLC's side: the handshake, and the wires it is spoken over."""
