"""The API's messages and stubs, generated from proto/informerd/v1. The modules above are built on them."""
