"""What a model may write next: a small grammar engine over characters, and JSON Schema in the styles that dialects write."""
