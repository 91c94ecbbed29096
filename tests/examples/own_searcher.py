"""A searcher of one's own, complete: it keeps what it knows to be good and changes a choice or two of it.

rlnas bench --agents tests/examples/own_searcher.py:KeepTheBest,random ...
"""

from rlnas.agents.searchers import Searcher


class KeepTheBest(Searcher):
    def __init__(self, space, seed=0):
        super().__init__(space, seed)
        self.best, self.accuracy = None, -1.0

    def ask(self):
        if self.best is None or self.rng.random() < 0.1:
            return self.space.sample(self.rng)
        once = self.space.mutate(self.best, self.rng)
        return once if self.rng.random() < 0.5 else self.space.mutate(once, self.rng)

    def tell(self, architecture, accuracy):
        if accuracy > self.accuracy:
            self.best, self.accuracy = architecture, accuracy
