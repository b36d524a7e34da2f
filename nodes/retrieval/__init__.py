"""Load Reflective Retriever, Retrieve Real References, Edit References: a prompt -> photos."""
