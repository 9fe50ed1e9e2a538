"""The application: settings become objects, the daemon and the library run them."""
