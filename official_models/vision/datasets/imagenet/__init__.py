"""ImageNet as TFRecord shards."""
