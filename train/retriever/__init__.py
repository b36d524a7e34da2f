"""The stages of a recipe in order: embed, imagine, mine, fit, evaluate, index. Nothing else imports them."""
