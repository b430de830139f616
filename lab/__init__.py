"""What the notebooks share. Import the modules by name: `from lab.machine import hello`."""
