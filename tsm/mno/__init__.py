"""What mobile operators tell in words of their own standards, put into ours."""
