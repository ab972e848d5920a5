-- Who may do what in PostgreSQL. Run by infra/rights/databases.py in each database that it names, any number of times.
-- mlflow owns mlflow and mlflow_auth, prefect owns prefect; reader (dashboards, checks) reads mlflow and prefect, but not
-- mlflow_auth, where the hashes of passwords are. A trainer, a promoter and a worker have no role here: they speak to servers.
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO reader;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT SELECT ON TABLES TO reader;
