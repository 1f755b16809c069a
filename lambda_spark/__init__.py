"""A store recommender as a Lambda architecture on Spark and Delta Lake."""
