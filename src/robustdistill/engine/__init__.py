"""How it gets fast, and how it stays the same: devices, threads, memory. No equation stands here."""
