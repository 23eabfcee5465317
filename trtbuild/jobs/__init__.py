"""What a command or a script asks for, one job a file: the stages in their order, one result."""
