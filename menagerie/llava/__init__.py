"""The embedded LLaVA: a small Llama that reads the patches of the embedded CLIP, trained on Menagerie pictures."""
