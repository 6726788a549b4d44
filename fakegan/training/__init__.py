"""All of Lightning: data modules, checkpoint IO."""
