"""What the system tests share: a gateway in a folder of its own, next hops, dialogs."""
