"""Collections of photos' vectors that are searched by photo id: our own index and Milvus behind one protocol, and the
index that asks them. Knows no bundle, encoder or photo."""
