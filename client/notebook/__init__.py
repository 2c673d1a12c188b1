"""A notebook for the terminal that suggests the next words and learns as you type: a whole app over EdgeClient."""
