"""From definitions to SQL, purely: resolved plan, Ibis expression, SQL text."""
