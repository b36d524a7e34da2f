"""Photos -> a bundle: scan, encode in shards, write; alone or with other workers. The only room that makes bundles."""
