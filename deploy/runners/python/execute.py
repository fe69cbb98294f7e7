def execute_function(input):
    """Replace this file in an image of your own."""
    return {"echo": input}
