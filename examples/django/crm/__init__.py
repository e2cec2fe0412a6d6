"""What the project has to do with the CRM."""
