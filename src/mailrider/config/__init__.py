"""The configuration language: text to nodes with positions, nodes to settings; every error says where."""
