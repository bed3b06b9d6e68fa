"""How long an inspection takes on this device, from trigger to verdict, measured on the very path that inspects."""
