"""All of Lightning: modules, data modules, callbacks, loggers and the Trainer of one network."""
