"""The command line, a module per group of commands: arguments in, one call, a result out."""
