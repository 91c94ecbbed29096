"""A user's own algorithm of stable-baselines3, ready to take part in a comparison."""

from stable_baselines3 import PPO

from rlnas.agents.legal import LegalAgent
from rlnas.agents.problem import SearchProblem
from rlnas.agents.sb3 import as_vec_env


def small_ppo(problem: SearchProblem, seed: int) -> LegalAgent:
    env = as_vec_env(problem.training_env(16))
    model = PPO("MlpPolicy", env, n_steps=32, batch_size=128, ent_coef=0.05, seed=seed, device="cpu")
    model.learn(problem.training_steps)
    return LegalAgent(model, problem.layout, seed)
