"""The device's half of Lineward."""
