"""The command `judge`: figures for pictures painted under several arms."""
