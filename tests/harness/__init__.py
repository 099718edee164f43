"""A real httpd, back ends that misbehave on order, and clients that see every byte."""
