"""Which experts are chosen, by how much, and the training of routers that choose clearly."""
import numpy as np


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def probabilities(experts, logits):
    return 1 / (1 + np.exp(-logits)) if experts["gating"] == "sigmoid" else softmax(logits)


def scores_and_slopes(experts, logits, bias):
    """What experts are chosen by, and how it follows the logits."""
    if bias is None:
        return logits, np.ones_like(logits)
    shares = probabilities(experts, logits)
    return shares + bias, shares * (1 - shares)


def greatest(scores, count):
    """Indices of the greatest `count` of each row, greatest first."""
    return np.argsort(-scores, axis=-1, kind="stable")[..., :count]


def best_of_groups(scores, groups):
    """The best two experts of each group: [rows, groups, 2]."""
    count, size = groups[0], scores.shape[1] // groups[0]
    return greatest(scores.reshape(-1, count, size), 2) + np.arange(count)[:, None] * size


def sums(values, indices):
    return np.take_along_axis(values, indices.reshape(len(values), -1), axis=1).reshape(indices.shape).sum(-1)


def within_groups(scores, groups):
    """The scores, but those of the groups that are not among the best by their two best experts."""
    kept = greatest(sums(scores, best_of_groups(scores, groups)), groups[1])
    allowed = np.zeros((len(scores), groups[0]), bool)
    np.put_along_axis(allowed, kept, True, axis=1)
    return np.where(np.repeat(allowed, scores.shape[1] // groups[0], axis=1), scores, -np.inf)


def chosen(experts, logits, bias, count=None):
    scores, _ = scores_and_slopes(experts, logits, bias)
    if experts["groups"]:
        scores = within_groups(scores, experts["groups"])
    return greatest(scores, count or experts["used"])


def contest(scores, slopes, last, first):
    """The last chosen, the first refused, and how far they are apart, as a distance of logits."""
    mean_slope = (sums(slopes, last) + sums(slopes, first)) / 2
    return last, first, (sums(scores, last) - sums(scores, first)) / mean_slope


def contests(experts, logits, bias):
    """Of experts; and of groups of them, by their best two, where there are groups."""
    scores, slopes = scores_and_slopes(experts, logits, bias)
    used, order = experts["used"], chosen(experts, logits, bias, experts["used"] + 1)
    found = [contest(scores, slopes, order[:, used - 1:used], order[:, used:])]
    if experts["groups"]:
        pairs = best_of_groups(scores, experts["groups"])
        ranks = greatest(sums(scores, pairs), experts["groups"][1] + 1)
        last, first = (np.take_along_axis(pairs, ranks[:, at, None, None], axis=1)[:, 0] for at in (-2, -1))
        found.append(contest(scores, slopes, last, first))
    return found


def distances(experts, logits, bias):
    return np.min([distance for _, _, distance in contests(experts, logits, bias)], axis=0)


def without_mean(y, x):
    """The rows y without what they have of the mean of the rows x."""
    mean = x.mean(0)
    return y - np.outer(y @ mean, mean) / (mean @ mean)


def parted(router, x, logit_bias, experts, bias):
    """The router, turned until the last chosen and the first refused are the gap apart on the rows x.

    A perceptron: where they are closer, the last is moved towards the row and the first away from it. The rows of
    the matrix keep their length, so that the logits keep their spread.
    """
    length, pulls = np.linalg.norm(router, axis=1, keepdims=True), x
    if experts["balanced"]:
        router, pulls = without_mean(router, x), without_mean(x, x)
    steps = experts["steps"]
    for step in range(steps):
        pull, moved = .3 * (1 - step / steps) / len(x), router.copy()
        for last, first, distance in contests(experts, x @ router.T + logit_bias, bias):
            close = distance < experts["gap"]
            np.add.at(moved, last[close], pull * pulls[close][:, None])
            np.subtract.at(moved, first[close], pull * pulls[close][:, None])
        if np.array_equal(moved, router):
            break
        router = moved * (length / np.linalg.norm(moved, axis=1, keepdims=True))
    return router
