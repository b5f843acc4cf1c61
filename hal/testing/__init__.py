"""What authors of backends test with: fake devices with declared limits, and the checks that every op must pass."""
